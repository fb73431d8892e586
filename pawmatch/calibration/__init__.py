"""Everything about confidence: its fitted numbers, their use, the verdict, and how they are fitted."""

from pawmatch.calibration.apply import Calibration, LabelGroup, OutsideRule, ScopeGate, UnknownRule

__all__ = ["Calibration", "LabelGroup", "OutsideRule", "ScopeGate", "UnknownRule"]
