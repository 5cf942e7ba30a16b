"""The folder and the disk that a store lies on."""
