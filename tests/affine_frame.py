"""Template pixels of a blurred frame that an affine map made by hand joins to TESS pixels."""

import numpy as np

from syndiff_tasks.pixels import template


def positions(frame, lattice):
    """Native px, and area of a pixel, at the points of a lattice; frame is (matrix, origin): matrix @ tess + origin."""
    matrix, origin = frame
    x, y = np.meshgrid(lattice.x, lattice.y)
    px, py = np.tensordot(matrix, np.stack([x, y]), axes=1) + np.reshape(origin, (2, 1, 1))
    return px, py, np.full(px.shape, abs(np.linalg.det(matrix)))


def sampled(frame, blurred, box, offset=(0.0, 0.0), rule=None):
    """Template of the pixels x0 <= x < x1, y0 <= y < y1, as `template.Sampled` of 1-D arrays, x running fastest."""
    x0, y0, x1, y1 = box
    matrix, origin = frame
    rule = rule or template.rule(blurred.sigma, abs(np.linalg.det(matrix)) ** 0.5)
    planes = template.blank((y1 - y0, x1 - x0))
    lattice = template.lattice(np.ones((y1 - y0, x1 - x0), bool), (0, 0), rule, [offset])
    px, py, area = positions((matrix, origin + matrix @ [x0, y0]), lattice)
    template.integrate(template.read(blurred, px, py, area), lattice, offset, planes)
    return template.Sampled(*(plane.ravel() for plane in planes))
