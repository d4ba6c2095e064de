"""Files: readers and writers of scans, the folder of a run, its log."""
