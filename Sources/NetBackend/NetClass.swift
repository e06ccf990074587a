// Which backend directories are network cards of ours.

