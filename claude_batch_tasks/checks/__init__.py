"""The checks of a set-up that need only its settings and one poll of its servers."""
