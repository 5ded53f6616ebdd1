"""RecBole's command line: `python run.py --model=DiffMM --dataset=tiktok --learning_rate=0.001`."""

import sys

from recbole_diffmm.cli import main

if __name__ == "__main__":
    sys.exit(main(["run", *sys.argv[1:]]))
