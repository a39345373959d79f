"""The commands. A module imports what a command needs when it runs, so that its help is there at once."""
