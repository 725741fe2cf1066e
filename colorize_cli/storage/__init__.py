"""Files here and in stores."""
