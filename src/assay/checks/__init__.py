"""Checks of a run on this machine: does it resume, repeat, hold its files, read right?"""
