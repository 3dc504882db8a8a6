"""Template pixels that an affine map joins to a convolved sky: what pictures and tests of accuracy need of an FFI."""

import numpy as np

from syndiff_tasks.pixels import quadrature, template


def sampled(convolved, frame, box, offset=(0.0, 0.0), rule=None):
    """Integrate a convolved sky over the pixels of a box.

    Parameters
    ----------
    convolved : convolution.Convolved
        The sky.
    frame : (ndarray of shape (2, 2), ndarray of shape (2,))
        Matrix and origin: template px (x, y) is seen at native px matrix @ (x, y) + origin.
    box : (int, int, int, int)
        x0, y0, x1, y1 of the pixels, half-open.
    offset : (float, float)
        (dx, dy) [template px].
    rule : quadrature.QuadratureRule, optional
        How pixels are integrated; by default that of `quadrature.quadrature_rule`.

    Returns
    -------
    planes : template.Sampled
        1-D arrays, x running fastest.
    """
    matrix, origin = frame
    x0, y0, x1, y1 = box
    area = abs(np.linalg.det(matrix))
    planes = template.blank((y1 - y0, x1 - x0))
    rule = rule or quadrature.quadrature_rule(convolved.sigma, area**0.5)
    grid = quadrature.quadrature_grid(np.ones(planes.dq.shape, bool), (x0, y0), rule, [offset])

    def positions(x, y, start, stop):
        return *(np.tensordot(matrix, np.meshgrid(x, y), axes=1) + np.reshape(origin, (2, 1, 1))), area

    template.integrate(convolved, grid, positions, [planes])
    return template.Sampled(*(plane.ravel() for plane in planes))
