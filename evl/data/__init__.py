"""Lists of labeled videos, the datasets made of them, and the order in which training reads them."""
