import re
from pathlib import Path

from setuptools import find_packages, setup

VERSION = re.search(r'^__version__ = "(.+)"$', Path("syndiff_tasks/__init__.py").read_text(encoding="utf-8"), re.M)[1]

setup(
    name="syndiff_tasks",
    version=VERSION,
    description="Deep, PSF-matched Pan-STARRS1 templates for TESS Full Frame Images, as a Luigi task graph",
    long_description=open("README.md", encoding="utf-8").read(),
    long_description_content_type="text/markdown",
    license="BSD-3-Clause",
    # Luigi 3.8.1 is declared for Python below 3.14.
    python_requires=">=3.10,<3.14",
    packages=find_packages(include=["syndiff_tasks", "syndiff_tasks.*"]),
    package_data={"syndiff_tasks": ["luigi.cfg"], "syndiff_tasks.report": ["templates/*.html"]},
    install_requires=[
        "luigi>=3.8,<4",
        "numpy>=1.26,<3",
        "astropy>=6.1,<9",
        "pandas>=2.1,<4",
        "numcodecs>=0.13; python_version < '3.11'",
        "numcodecs>=0.14; python_version >= '3.11'",
        "google-crc32c>=1.6",
        "isal>=1.6",
        # To open the products with; io/store.py writes plain Zarr v3 without it. zarr 3 needs Python 3.11 and numcodecs
        # 0.14, which needs Python 3.11 too.
        "zarr>=3.0,<4; python_version >= '3.11'",
        "sep>=1.4,<2",
        "scipy>=1.12",
        "numba>=0.60",
        "shapely>=2.0,<3",
        "mocpy>=0.17",
        "requests>=2.31,<3",
        "sqlalchemy>=2.0,<3",
        "matplotlib>=3.8",
        "pillow>=9.1",
        "jinja2>=3.1,<4",
        "shtab>=1.7",
        "tqdm>=4.66",
        # Luigi ends a timed-out task together with its children where it finds psutil.
        "psutil>=5.9",
        "xxhash>=3.4",
    ],
    extras_require={
        "gaia": ["astroquery>=0.4.7"],
        "metrics": ["prometheus-client>=0.20"],
        "postgres": ["psycopg[binary]>=3.1"],
        "test": [
            "pytest>=8",
            "pytest-xdist>=3.5",
            "hypothesis>=6.100",
            "ruff>=0.6",
            "codespell[toml]>=2.3",
            "tesswcs>=1.1",
            # The notebook of the documentation is executed by a test.
            "nbclient>=0.10",
            "ipykernel>=6.29",
            "prometheus-client>=0.20",
        ],
        "docs": [
            *("sphinx>=7.2", "pydata-sphinx-theme>=0.15", "numpydoc>=1.7", "myst-nb>=1.1", "sphinx-copybutton>=0.5"),
            "sphinx-mathjax-offline>=0.0.2",
        ],
        "bench": ["reproject>=0.13", "dask-image>=2024.5", "fitsio>=1.2"],
    },
    entry_points={"console_scripts": ["syndiff_tasks=syndiff_tasks.cli:main"]},
)
