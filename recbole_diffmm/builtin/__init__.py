"""RecBole's models where they need more than a mend: one file each, a subclass of the same name that runs instead."""
