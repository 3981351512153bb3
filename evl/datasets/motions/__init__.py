"""The data set `motions`: drawn objects that move as in Something-Something."""
