"""`python -m fieldshot`: the command `fieldshot`, for an interpreter whose scripts are not on the path."""

import sys

from fieldshot.cli import main

if __name__ == "__main__":
    sys.exit(main())
