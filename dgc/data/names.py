"""Names of files as text: see dgc.file_names, which the manager reads too."""

from dgc.file_names import unwritten, written

__all__ = ["unwritten", "written"]
