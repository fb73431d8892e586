"""Find, read, check and write checkpoints: a folder, or a repository on the Hugging Face Hub.

A checkpoint is config.json + files of weights (.safetensors), with README.md as its card. It holds one or
several variants of a task. Nothing here unpickles.
"""

from pawmatch.checkpoint.config import FORMAT_VERSION, Answers, CheckpointConfig, WeightsFile, main_variant
from pawmatch.checkpoint.load import Checkpoint, load_checkpoint, load_task, read_configs
from pawmatch.checkpoint.save import push, push_space, save_again, save_checkpoint, save_task

__all__ = [
    "FORMAT_VERSION",
    "Answers",
    "Checkpoint",
    "CheckpointConfig",
    "WeightsFile",
    "load_checkpoint",
    "load_task",
    "main_variant",
    "push",
    "push_space",
    "read_configs",
    "save_again",
    "save_checkpoint",
    "save_task",
]
