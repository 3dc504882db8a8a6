"""Interface of a tessellation: the division of the sky into skycells, each position owned by one of them."""

from .skycell import MARGIN
from .tangent import unit_vectors


class Tessellation:
    """Set of skycells in which each position of the sky has one owner, or none.

    Attributes
    ----------
    size : int
        Ids of skycells are from 0 to ``size - 1``; not every number is the id of a skycell.
    largest_radius : float
        Largest distance from the center of a skycell to one of its corners [deg], or more.
    """

    size: int
    largest_radius: float

    def skycell(self, name):
        """Return the skycell of a name.

        Parameters
        ----------
        name : str

        Returns
        -------
        Skycell

        Raises
        ------
        ValueError
            If the tessellation has no such skycell.
        """
        raise NotImplementedError

    def name_of(self, number):
        """Return the name of a skycell.

        Parameters
        ----------
        number : int
            Id of the skycell.

        Returns
        -------
        str
        """
        raise NotImplementedError

    def owner_of_vectors(self, vectors):
        """Return the owner of each sky position.

        Parameters
        ----------
        vectors : ndarray of float64, shape (n, 3)
            Unit vectors.

        Returns
        -------
        ndarray of int64, shape (n,)
            Ids; -1 where no skycell owns the position.
        """
        raise NotImplementedError

    def near(self, vector, angle):
        """Return the skycells with their centers near a sky position.

        Parameters
        ----------
        vector : ndarray of float64, shape (3,)
            Unit vector.
        angle : float
            Largest distance of the center [deg].

        Returns
        -------
        list of Skycell
            Sorted by name.
        """
        raise NotImplementedError

    def margin(self, skycell):
        """Return how far the image of a skycell extends beyond the sky it owns, on the side where this is least.

        Parameters
        ----------
        skycell : Skycell

        Returns
        -------
        float
            Native pixels, `MARGIN` or fewer; negative where a skycell owns sky beyond its image. A user's table is
            assumed to have the same layout as PS1. Gaps of up to 31 px between the cores of adjacent projections are
            ignored.
        """
        return MARGIN

    def owner(self, ra, dec):
        """Return the owner of each sky position.

        Parameters
        ----------
        ra, dec : array_like of float, shape (...)
            Degrees.

        Returns
        -------
        ndarray of int64, shape (...)
            Ids; -1 where no skycell owns the position.
        """
        vectors = unit_vectors(ra, dec)
        return self.owner_of_vectors(vectors.reshape(-1, 3)).reshape(vectors.shape[:-1])
