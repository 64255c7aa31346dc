"""Where a formula comes from."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Citation:
    """A published source, exact to the equation.

    Attributes:
        authors: As cited in running text: "Su et al. 2021".
        ref: An identifier that can be looked up: "arXiv:2104.09864", "doi:...".
        where: The equation, section or table used: "eq. 15".
    """

    authors: str
    ref: str
    where: str

    def __str__(self) -> str:
        return f"{self.authors}, {self.ref}, {self.where}"
