"""Colors as arrays: CIE Lab, Y'CbCr, lightness and its resizing."""
