"""Kernels in C++: compiled where they are used or brought by a wheel, and called through ctypes."""
