"""How far a set of settings reaches when two things are wanted at once."""

from collections.abc import Iterable


def dominated_area(points: Iterable[tuple[float, float]]) -> float:
    """Return the area of the region under and left of the points, down to (0, 0).

    The hypervolume in two dimensions, with the reference point at the origin: a point adds only
    what no other point dominates, so a setting can never lower it. Points below zero in either
    coordinate add nothing, as do those that are not numbers.

    Source: Zitzler & Thiele 1999, doi:10.1109/4235.797969, section III.
    """
    area = reached = 0.0
    inside = [point for point in points if all(value > 0 for value in point)]
    for x, y in sorted(inside, reverse=True):
        if y > reached:  # of the points at least so far right, the highest
            area += x * (y - reached)
            reached = y
    return area
