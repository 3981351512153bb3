"""The data set `motions`, which evl makes: videos of drawn objects that move as in Something-Something."""
