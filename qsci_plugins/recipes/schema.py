"""What a recipe for images may say: one kind quantizes a network, the other trains a float one (it has `data`)."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field, field_validator, model_validator

from qsci_plugins.machine import DEVICES
from qsci_plugins.training.settings import (
    CADyQTraining,
    FineTuning,
    FloatTraining,
    Folder,
    Section,
    Training,
    TrainingPhase,
    VideoTraining,
)

__all__ = [
    "BUILTIN_SCENES",
    "DRAWN_MASKS",
    "Benchmark",
    "CADyQTraining",
    "Calibration",
    "Clips",
    "Export",
    "FineTuning",
    "FloatRecipe",
    "FloatTraining",
    "FloatVideoRecipe",
    "Folder",
    "Inference",
    "Model",
    "OpenVINOExport",
    "Place",
    "Recipe",
    "TrainingPhase",
    "VideoCalibration",
    "VideoExport",
    "VideoOpenVINO",
    "VideoRecipe",
    "VideoSet",
    "VideoTraining",
]

#: where images come from without a folder: the photos inside scikit-image and scikit-learn
BUILTIN_PHOTOS = "builtin:photos"

#: a list that may be written as its only item
_Listed = BeforeValidator(lambda value: [value] if isinstance(value, str) else value)
Strings = Annotated[list[str], _Listed]


def _two_sides(tile: list[int]) -> list[int]:
    if len(tile) != 2 or not all(16 <= side <= 4096 for side in tile):
        raise ValueError("should be [height, width], each 16 to 4096")
    return tile


#: height and width of a tile
Tile = Annotated[list[int], AfterValidator(_two_sides)]


#: where torch computes; auto: on the GPU where there is one. OpenVINO runs on the CPU
Device = Annotated[str, Field(pattern=f"^({DEVICES})$")]


class Model(Section):
    """The float network: what `architectures.load_network` takes."""

    #: a name that `load_network` knows, or python:package.module:Factory; absent, the tensors of `weights` tell
    architecture: str | None = None
    #: a checkpoint file, builtin:NAME, or absent for random weights by `seed`
    weights: str | None = None
    scale: int | None = Field(default=None, ge=1, le=16)
    #: the brightest value of the network's input; absent, the architecture knows it
    value_range: float | None = Field(default=None, gt=0)
    #: hyper-parameters that the weights do not tell
    settings: dict[str, Any] = Field(default={})

    @field_validator("settings")
    @classmethod
    def _no_doubles(cls, settings: dict[str, Any]) -> dict[str, Any]:
        doubled = sorted({"architecture", "weights", "scale", "seed", "value_range"} & settings.keys())
        if doubled:
            raise ValueError(f"{doubled[0]} has its own key; move it out of model.settings")
        return settings

    @model_validator(mode="after")
    def _something(self) -> Model:
        if self.architecture is None and self.weights is None:
            raise ValueError("give architecture, weights, or both")
        return self


class Place(Section):
    """Patterns of layer names (`*`, `?`, `[...]`): `float` wins over `eight_bit`, which wins over `targets`."""

    targets: Strings = Field(default=["*"])
    eight_bit: Strings = Field(default=[])
    float_: Strings = Field(default=[], alias="float")


class Calibration(Section):
    """Which images the quantizers are fitted to, and (without labels) fine-tuned with."""

    #: builtin:photos, or folders of images and image files
    images: Strings = Field(default=[BUILTIN_PHOTOS])
    count: int = Field(default=100, ge=1, le=100_000)
    #: side of the square low-resolution patches, in pixels
    patch: int = Field(default=96, ge=8, le=2048)
    batch: int = Field(default=16, ge=1, le=1024)
    seed: int = Field(default=0, ge=0)
    #: whether the images are high resolution and low resolution is made of them (MATLAB's bicubic)
    degrade: bool = True

    @field_validator("images")
    @classmethod
    def _some(cls, images: list[str]) -> list[str]:
        if not images:
            raise ValueError(f"name {BUILTIN_PHOTOS} or at least one folder")
        if BUILTIN_PHOTOS in images and len(images) > 1:
            raise ValueError(f"{BUILTIN_PHOTOS} stands alone; leave it out, or the folders")
        return images


class Inference(Section):
    """How the quantized network runs in torch: on square patches, so that each has bits of its own."""

    #: side of a patch in low-resolution pixels
    patch: int = Field(default=96, ge=16, le=4096)
    #: from one patch to the next; what overlaps is averaged
    step: int = Field(default=90, ge=1)
    batch: int = Field(default=16, ge=1, le=1024)

    @model_validator(mode="after")
    def _covering(self) -> Inference:
        if self.step > self.patch:
            raise ValueError(f"a step of {self.step} leaves gaps between patches of {self.patch}; make it at most that")
        return self


class Benchmark(Section):
    """A set to measure on: `builtin`, or a folder in EDSR's layout inside `folder` (else inside --data)."""

    name: str = Field(alias="set", min_length=1)
    #: absent: the network's
    scale: int | None = Field(default=None, ge=1, le=16)
    folder: str | None = None


class OpenVINOExport(Section):
    """How the network is lowered: a static graph per image factor (`routed`), one for an average image (`static`), one
    that chooses its bits itself (`dynamic`), or not at all."""

    mode: Literal["routed", "static", "dynamic", "none"] = "routed"
    #: height and width of the tiles that images of any size are cut into, low-resolution pixels
    tile: Tile = Field(default=[180, 320])
    #: context around a tile in low-resolution pixels; absent: the receptive radius, at most a quarter of the tile
    overlap: int | None = Field(default=None, ge=0)


class Export(Section):
    """What is left to deploy."""

    openvino: OpenVINOExport = OpenVINOExport()


class Recipe(Section):
    """Quantizes a network: read it with `recipes.read_recipe`, run it with `qsci_plugins.run`.

    >>> import qsci_plugins
    >>> recipe = qsci_plugins.read_recipe(qsci_plugins.find_recipe("edsr_x4_adabm_w4a4"))
    >>> recipe.backend, recipe.calibrate.count
    ('nncf', 100)
    """

    version: Literal[1]
    model: Model
    backend: Literal["nncf", "brevitas"] = "nncf"
    #: a scheme's name and settings; `schemes.make_scheme` knows which
    scheme: dict[str, Any]
    place: Place = Place.model_validate({})
    calibrate: Calibration = Calibration()
    #: absent: no fine-tuning
    train: Training | None = None
    #: absent: whole images
    inference: Inference | None = None
    evaluate: list[Benchmark] = Field(default=[])
    export: Export = Export()
    seed: int = Field(default=0, ge=0)
    device: Device = "auto"


class FloatRecipe(Section):
    """Trains a float network: `qsci_plugins.train`.

    >>> import qsci_plugins
    >>> recipe = qsci_plugins.read_recipe(qsci_plugins.find_recipe("float/edsr_x4"))
    >>> type(recipe).__name__, recipe.train.steps
    ('FloatRecipe', 4000)
    """

    version: Literal[1]
    model: Model
    data: list[Folder] = Field(min_length=1)
    train: FloatTraining
    evaluate: list[Benchmark] = Field(default=[])
    seed: int = Field(default=0, ge=0)
    device: Device = "auto"


#: where clips come from without a folder: scenes made by code from the built-in calibration photos
BUILTIN_SCENES = "builtin:scenes"

#: values of `clips.mask` that are no file
DRAWN_MASKS = ("random", "shifting", "mixed")

Listed = Annotated[Strings, Field(min_length=1)]


class Clips(Section):
    """The videos that training and calibration clips are cut out of, and the mask that they are seen through."""

    #: builtin:scenes, or folders with sequences: folders of frames (DAVIS layout) and video files
    folders: Listed = Field(default=[BUILTIN_SCENES])
    #: frames are made smaller by this factor
    downsize: int = Field(default=1, ge=1, le=16)
    #: cut and scale clips as the published code does; false: cut them as they are
    resize: bool = True
    #: a .mat file, or "random" (each pixel open by chance in half of the frames), "shifting" (an aperture of such pixels
    #: that moves right by one pixel from frame to frame, as a CACTI camera's) or "mixed" (four random ones and four that
    #: move right, left, down and up; each clip is seen through one of them)
    mask: str = "random"
    #: frames in a measurement and side of the mask, of one that is no file
    frames: int = Field(default=8, ge=1, le=64)
    size: int = Field(default=256, ge=16, le=4096)
    #: each clip is made up to so many times brighter or darker, white stays white: ranges of activations that are learned on
    #: clips without bright walls and skies cut them off elsewhere
    exposure: float = Field(default=1.0, ge=1, le=16)
    #: standard deviation of the measurement's noise (a frame's full brightness is 1), and photons at full brightness
    gaussian: float = Field(default=0.0, ge=0)
    photons: float | None = Field(default=None, gt=0)

    @field_validator("folders")
    @classmethod
    def _alone(cls, folders: list[str]) -> list[str]:
        if BUILTIN_SCENES in folders and len(folders) > 1:
            raise ValueError(f"{BUILTIN_SCENES} stands alone; leave it out, or the folders")
        return folders


class VideoCalibration(Section):
    """Clips that the quantizers' first values are fitted to."""

    count: int = Field(default=16, ge=1, le=10_000)
    patch: int = Field(default=64, ge=8, le=2048)
    batch: int = Field(default=4, ge=1, le=1024)
    seed: int = Field(default=0, ge=0)


class VideoSet(Section):
    """Scenes to measure on: `builtin`, or the .mat files (keys orig and mask) and clips in `folder`."""

    name: str = Field(alias="set", min_length=1)
    folder: str | None = None
    #: of each file the first so many measurements; absent: all
    measurements: int | None = Field(default=None, ge=1)
    #: what scenes are seen through instead of their own mask, as in `clips`; one that is drawn is none of those of `clips`
    mask: str | None = None

    @model_validator(mode="after")
    def _somewhere(self) -> VideoSet:
        if (self.name == "builtin") == (self.folder is not None):
            raise ValueError("a set is `builtin`, or has a folder of .mat files or clips")
        return self


class VideoOpenVINO(Section):
    """How the network is lowered: one static graph (`static`), one per image factor (`routed`), or not at all."""

    mode: Literal["static", "routed", "none"] = "static"
    #: height and width of the tiles that measurements of any size are cut into
    tile: Tile = Field(default=[256, 256])
    #: context around a tile; absent: the receptive radius, at most a quarter of the tile
    overlap: int | None = Field(default=None, ge=0)


class VideoExport(Section):
    """What is left to deploy."""

    openvino: VideoOpenVINO = VideoOpenVINO()


class FloatVideoRecipe(Section):
    """Trains a float network: `qsci_plugins.train`."""

    version: Literal[1]
    model: Model
    clips: Clips
    train: VideoTraining
    evaluate: list[VideoSet] = Field(default=[])
    seed: int = Field(default=0, ge=0)
    device: Device = "auto"


class VideoRecipe(Section):
    """Quantizes a network: `qsci_plugins.run`."""

    version: Literal[1]
    model: Model
    backend: Literal["nncf", "brevitas"] = "nncf"
    #: convolutions that get an 8-bit branch beside them: Q-SCI's feature extraction (fem.*) and reconstruction (vrm.*)
    shortcuts: Strings = Field(default=[])
    #: factor of the branches' first (random) weights; their quantizers keep the range of whole ones, to grow into
    shortcut_start: float = Field(default=1.0, gt=0)
    #: a scheme's name and settings; `schemes.make_scheme` knows which
    scheme: dict[str, Any]
    place: Place = Place.model_validate({})
    clips: Clips
    calibrate: VideoCalibration = VideoCalibration()
    #: absent: calibration alone
    train: VideoTraining | None = None
    evaluate: list[VideoSet] = Field(default=[])
    export: VideoExport = VideoExport()
    seed: int = Field(default=0, ge=0)
    device: Device = "auto"
