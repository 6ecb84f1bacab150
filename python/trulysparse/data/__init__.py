# SPDX-License-Identifier: BSD-3-Clause
"""Data sets: from files, by name, embedded, or made up."""

from trulysparse.data.artificial import artificial_classification, load_artificial
from trulysparse.data.augment import AUGMENTATIONS, Augmentation, ImageAugmentation, get_augmentation
from trulysparse.data.dataset import Dataset
from trulysparse.data.digits import load_digits
from trulysparse.data.files import known_datasets, load_dataset, save_dataset
from trulysparse.data.split import validation_split
from trulysparse.data.synthetic import make_classification

__all__ = [
    "AUGMENTATIONS",
    "Augmentation",
    "Dataset",
    "ImageAugmentation",
    "artificial_classification",
    "get_augmentation",
    "known_datasets",
    "load_artificial",
    "load_dataset",
    "load_digits",
    "make_classification",
    "save_dataset",
    "validation_split",
]
