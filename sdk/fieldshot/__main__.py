"""`python -m fieldshot`: the command `fieldshot`, for an interpreter whose scripts are not on the path."""

import sys

from fieldshot.cli import main

sys.exit(main())
