"""What pyproject.toml cannot say: the wheel has the weights and the examples inside of the package."""

from setuptools import find_packages, setup

DATA = {"pawmatch.weights": "weights", "pawmatch.examples": "examples"}

setup(
    packages=[*find_packages(include=["pawmatch", "pawmatch.*"]), *DATA],
    package_dir=DATA,
)
