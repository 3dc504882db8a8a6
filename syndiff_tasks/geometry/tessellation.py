"""What every tessellation of the sky into skycells offers: the owner of a position, and skycells near it."""

from .skycell import MARGIN
from .tangent import unit_vectors


class Tessellation:
    """A set of skycells, and the one skycell that owns each position of the sky.

    An *id* is a whole number from 0 to ``size - 1``; not every number need be a skycell. No corner of a skycell lies
    further from its centre than `largest_radius` [deg].
    """

    size: int
    largest_radius: float

    def skycell(self, name):
        """Skycell of a name.

        Parameters
        ----------
        name : str

        Returns
        -------
        Skycell

        Raises
        ------
        ValueError
            If there is no such skycell.
        """
        raise NotImplementedError

    def name_of(self, number):
        """Name of a skycell.

        Parameters
        ----------
        number : int
            Its id.

        Returns
        -------
        str
        """
        raise NotImplementedError

    def owner_of_vectors(self, vectors):
        """Owner of each sky position.

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
        """Skycells with their centre near a sky position.

        Parameters
        ----------
        vector : ndarray of float64, shape (3,)
            Unit vector.
        angle : float
            Largest distance of the centre [deg].

        Returns
        -------
        list of Skycell
            Sorted by name.
        """
        raise NotImplementedError

    def margin(self, skycell):
        """Native px by which the image of a skycell goes on beyond all that it owns, on the side where that is least.

        Parameters
        ----------
        skycell : Skycell

        Returns
        -------
        float
            `MARGIN`, or less; negative where a skycell owns sky beyond its image. A user's table is taken to be laid
            out as the survey's. The slivers of up to 31 px between projections are left out of account.
        """
        return MARGIN

    def owner(self, ra, dec):
        """Owner of each sky position.

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
