"""The published sets that Keras downloads: MNIST, CIFAR-10 and CIFAR-100.

MNIST: Y. LeCun, C. Cortes, C. J. C. Burges. CIFAR: A. Krizhevsky, Learning multiple layers of features from tiny
images, 2009.
"""

import importlib
import os
from dataclasses import dataclass, replace
from pathlib import Path

from kbl.data import npz
from kbl.data.dataset import Dataset
from kbl.errors import UserError

_CIFAR10 = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
# The fine labels, in the order of their numbers.
_CIFAR100 = tuple(
    [
        "apple",
        "aquarium_fish",
        "baby",
        "bear",
        "beaver",
        "bed",
        "bee",
        "beetle",
        "bicycle",
        "bottle",
        "bowl",
        "boy",
        "bridge",
        "bus",
        "butterfly",
        "camel",
        "can",
        "castle",
        "caterpillar",
        "cattle",
        "chair",
        "chimpanzee",
        "clock",
        "cloud",
        "cockroach",
        "couch",
        "crab",
        "crocodile",
        "cup",
        "dinosaur",
        "dolphin",
        "elephant",
        "flatfish",
        "forest",
        "fox",
        "girl",
        "hamster",
        "house",
        "kangaroo",
        "keyboard",
        "lamp",
        "lawn_mower",
        "leopard",
        "lion",
        "lizard",
        "lobster",
        "man",
        "maple_tree",
        "motorcycle",
        "mountain",
        "mouse",
        "mushroom",
        "oak_tree",
        "orange",
        "orchid",
        "otter",
        "palm_tree",
        "pear",
        "pickup_truck",
        "pine_tree",
        "plain",
        "plate",
        "poppy",
        "porcupine",
        "possum",
        "rabbit",
        "raccoon",
        "ray",
        "road",
        "rocket",
        "rose",
        "sea",
        "seal",
        "shark",
        "shrew",
        "skunk",
        "skyscraper",
        "snail",
        "snake",
        "spider",
        "squirrel",
        "streetcar",
        "sunflower",
        "sweet_pepper",
        "table",
        "tank",
        "telephone",
        "television",
        "tiger",
        "tractor",
        "train",
        "trout",
        "tulip",
        "turtle",
        "wardrobe",
        "whale",
        "willow_tree",
        "wolf",
        "woman",
        "worm",
    ]
)


@dataclass(frozen=True)
class Published:
    """A data set that ``keras.datasets`` downloads.

    Args:
        name: of the module there, and of the `.npz` file that may take its place.
        cached: what Keras' cache holds once it is downloaded.
        class_names: in the order of the labels.
    """

    name: str
    cached: str
    class_names: tuple[str, ...]

    def locate(self) -> Path | None:
        """Return the file or folder that `load` would read, or None when it would have to download it."""
        for path in (self._own_file(), self._keras_file()):
            if path is not None and path.exists():
                return path
        return None

    def load(self) -> Dataset:
        """Read ``$KBL_DATA/<name>.npz``, else Keras' cache, else let Keras download.

        Raises:
            UserError: there is no file and no download, or the file is not what `npz.load` takes.
        """
        own = self._own_file()
        has_own = own is not None and own.is_file()
        dataset = npz.load(str(own), name=self.name) if has_own else self._from_keras(own)
        if dataset.num_classes > len(self.class_names):
            raise UserError(
                f"{self.name} has {len(self.class_names)} classes. Received: labels up to {dataset.num_classes - 1}"
            )
        return replace(dataset, class_names=self.class_names)

    def _from_keras(self, own: Path | None) -> Dataset:
        source = importlib.import_module(f"keras.datasets.{self.name}")
        try:
            (x_train, y_train), (x_test, y_test) = source.load_data()
        except Exception as error:  # Keras raises a bare Exception when a download fails.
            tried = f"{own} (from KBL_DATA) does not exist" if own else "KBL_DATA is not set"
            raise UserError(
                f"{self.name} was not found: {tried}, and Keras could neither read {self._keras_file()} nor "
                f"download it ({error}). Put {self.name}.npz (keys {', '.join(npz.KEYS)}) into a folder and set "
                f"KBL_DATA to that folder, or put what Keras distributes at {self._keras_file()}."
            ) from error
        arrays = {"x_train": x_train, "y_train": y_train, "x_test": x_test, "y_test": y_test}
        return npz.convert(arrays, name=self.name, source=f"Keras' {self.name}")

    def _own_file(self) -> Path | None:
        """Where $KBL_DATA says that the file lies, or None when it is not set."""
        folder = os.environ.get("KBL_DATA")
        return Path(folder).expanduser() / f"{self.name}.npz" if folder else None

    def _keras_file(self) -> Path:
        """Where Keras caches its download."""
        home = os.environ.get("KERAS_HOME") or "~/.keras"
        return Path(home).expanduser() / "datasets" / self.cached


MNIST = Published("mnist", "mnist.npz", tuple(str(digit) for digit in range(10)))
CIFAR10 = Published("cifar10", "cifar-10-batches-py-target", _CIFAR10)
CIFAR100 = Published("cifar100", "cifar-100-python-target", _CIFAR100)
