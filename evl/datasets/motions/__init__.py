"""The data set `motions`: videos of drawn objects that move as in Something-Something."""
