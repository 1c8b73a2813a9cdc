"""What a recipe for snapshot video may say: it has `clips`. With a `scheme` it quantizes, without it trains in float."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator

from qsci_plugins.recipes.schema import Model, Place, Section, Strings, Tile

__all__ = [
    "BUILTIN_SCENES",
    "Clips",
    "FloatVideoRecipe",
    "TrainingPhase",
    "VideoCalibration",
    "VideoExport",
    "VideoOpenVINO",
    "VideoRecipe",
    "VideoSet",
    "VideoTraining",
]

#: where clips come from without a folder: scenes made by code from the built-in calibration photos
BUILTIN_SCENES = "builtin:scenes"

Listed = Annotated[Strings, Field(min_length=1)]


class Clips(Section):
    """The videos that training and calibration clips are cut out of, and the mask that they are seen through."""

    #: builtin:scenes, or folders with sequences: folders of frames (DAVIS layout) and video files
    folders: Listed = Field(default=[BUILTIN_SCENES])
    #: frames are made smaller by this factor
    downsize: int = Field(default=1, ge=1, le=16)
    #: cut and scale clips as the published code does; false: cut them as they are
    resize: bool = True
    #: "random" (each pixel open by chance in half of the frames), or a .mat file
    mask: str = "random"
    #: frames in a measurement and side of the mask, of a random one
    frames: int = Field(default=8, ge=1, le=64)
    size: int = Field(default=256, ge=16, le=4096)
    #: standard deviation of the measurement's noise (a frame's full brightness is 1), and photons at full brightness
    gaussian: float = Field(default=0.0, ge=0)
    photons: float | None = Field(default=None, gt=0)

    @field_validator("folders")
    @classmethod
    def _alone(cls, folders: list[str]) -> list[str]:
        if BUILTIN_SCENES in folders and len(folders) > 1:
            raise ValueError(f"{BUILTIN_SCENES} stands alone; leave it out, or the folders")
        return folders


class TrainingPhase(Section):
    """`steps` steps on clips of `crop` x `crop` pixels; the rate goes on half a cosine to `final_rate` (absent: stays).

    `frames` takes the first so many of the mask (absent: all): few frames are cheap, and easy to tell apart.
    """

    crop: int = Field(ge=8, le=2048)
    frames: int | None = Field(default=None, ge=1, le=64)
    steps: int = Field(ge=1, le=100_000_000)
    rate: float = Field(gt=0)
    final_rate: float | None = Field(default=None, ge=0)


class VideoTraining(Section):
    """Training with Adam towards the frames themselves, float and quantized networks alike."""

    phases: list[TrainingPhase] = Field(min_length=1)
    #: clips of a step, of all processes together
    batch: int = Field(default=4, ge=1)
    loss: Literal["mse", "rmse"] = "rmse"
    #: steps in which the first phase's rate rises
    warmup: int = Field(default=0, ge=0)
    ema: float = Field(default=0.0, ge=0, lt=1)
    #: auto: bf16 on a GPU that computes in it, else float32
    precision: Literal["auto", "float32", "bf16", "fp16"] = "auto"
    #: largest norm of the gradient; 0: any
    clip: float = Field(default=0.0, ge=0)
    #: of quantized networks: by how many times the rate a quantization step moves, relative to its size
    quantizer_rate: float = Field(default=4.0, ge=0)
    checkpoint_every: int = Field(default=200, ge=1)
    #: keep only the blocks' inputs for the backward pass: less memory, a third more time
    gradient_checkpointing: bool = False
    channels_last: bool = True
    #: train on the CPU although there is a GPU
    cpu: bool = False
    #: write scalars of every step and sample pictures every `picture_every` steps into tensorboard/
    tensorboard: bool = False
    picture_every: int = Field(default=500, ge=1)


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
