"""When things happen: RecBole's trainers with phases, named losses, plain checkpoints and resuming."""
