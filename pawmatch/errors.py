"""Every error that a user may see, with the remedy in its message.

PawMatchError
├── ImageError              the file given is not a picture that can be used
│   ├── ImageNotFound
│   ├── ImageUnreadable
│   ├── UnsupportedFormat
│   ├── BrokenImage
│   ├── ImageTooLarge
│   └── ReaderDied
├── RequestError            the question is malformed
│   ├── UnknownTask
│   ├── UnknownVariant
│   ├── UnknownLabel
│   └── BadOption
├── ModelError              an architecture cannot be built
│   └── UnsupportedBackbone
├── CheckpointError         weights cannot be used
│   ├── CheckpointNotFound
│   ├── NotACheckpoint
│   ├── UnknownFormatVersion
│   ├── TruncatedFile
│   ├── DigestMismatch
│   ├── KeyMismatch
│   ├── ShapeMismatch
│   └── LabelCountMismatch
├── HubError                the Hugging Face Hub said no, or nothing
│   ├── RepoNotFound
│   ├── AccessDenied
│   └── HubUnavailable
├── TrainingError           a recipe or a training folder is wrong
└── Busy                    the service has no free place just now
"""


class PawMatchError(Exception):
    """Root of all errors that users see: one sentence that says what is wrong and what to do."""

    @property
    def code(self) -> str:
        """Name of the error's class, stable enough to branch on."""
        return type(self).__name__


class ImageError(PawMatchError):
    """A file cannot be used as a picture."""


class ImageNotFound(ImageError):
    """There is no file at the path given."""


class ImageUnreadable(ImageError):
    """The file exists and cannot be read: a folder, a device, or no permission."""


class UnsupportedFormat(ImageError):
    """The file is no picture, or is one of a kind that is not accepted."""


class BrokenImage(ImageError):
    """The file announces a picture and its data is damaged or cut short."""


class ImageTooLarge(ImageError):
    """The file has more bytes or pixels than are accepted."""


class ReaderDied(ImageError):
    """The process that reads images ended at this file, or did not come back from it."""


class RequestError(PawMatchError):
    """A question that cannot be answered as it was put."""


class UnknownTask(RequestError):
    """The task is not one of those that the program knows."""


class UnknownVariant(RequestError):
    """The variant is not one of those that the program knows, or the source lacks it."""


class UnknownLabel(RequestError):
    """The label to explain is not among the model's classes."""


class BadOption(RequestError):
    """An option has a value outside its range."""


class ModelError(PawMatchError):
    """An architecture cannot be built from the values given."""


class UnsupportedBackbone(ModelError):
    """The backbone is unknown to timm or does not give an NCHW feature map."""


class CheckpointError(PawMatchError):
    """Weights cannot be used."""


class CheckpointNotFound(CheckpointError):
    """There is no checkpoint at the place given."""


class NotACheckpoint(CheckpointError):
    """The file or folder is something else than a checkpoint, or its config is malformed."""


class UnknownFormatVersion(CheckpointError):
    """The checkpoint was written in a format that this version does not read."""


class TruncatedFile(CheckpointError):
    """The weights file is shorter than its header announces."""


class DigestMismatch(CheckpointError):
    """A weights file is not the one whose SHA-256 the config names."""


class KeyMismatch(CheckpointError):
    """Parameters are missing from the file, or it holds some that the model lacks."""


class ShapeMismatch(CheckpointError):
    """A parameter in the file has another shape than the model's."""


class LabelCountMismatch(CheckpointError):
    """The list of labels and the size of the classifier disagree."""


class HubError(PawMatchError):
    """The Hugging Face Hub did not hand out what was asked for."""


class RepoNotFound(HubError):
    """The repository, revision or file does not exist on the Hub."""


class AccessDenied(HubError):
    """The repository is private or gated, and the token given does not open it."""


class HubUnavailable(HubError):
    """The Hub cannot be reached, and no cached copy serves instead."""


class TrainingError(PawMatchError):
    """A recipe or a training folder cannot be used."""


class Busy(PawMatchError):
    """The service has no free place just now."""
