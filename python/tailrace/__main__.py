"""`python -m tailrace` and the command `tailrace`."""

import sys

from tailrace._cli import main

if __name__ == "__main__":
    sys.exit(main())
