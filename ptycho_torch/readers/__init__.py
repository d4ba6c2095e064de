"""Files of scans into `Scan`, one format a module. The content of a file decides, not its name."""

from ptycho_torch.readers.find import FORMATS, read_recording, read_scan, scans_in

__all__ = ["FORMATS", "read_recording", "read_scan", "scans_in"]
