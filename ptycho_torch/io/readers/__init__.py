"""Files of scans into `Scan`, one format a module. The content of a file decides, not its name."""

from ptycho_torch.io.readers.detect import FORMATS, files_read, read_raw_scan, read_scan, scans_in

__all__ = ["FORMATS", "files_read", "read_raw_scan", "read_scan", "scans_in"]
