"""What each framework's config files may hold, read out of its wheels as syntax trees."""
