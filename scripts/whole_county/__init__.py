"""A whole made county: every archive of HCAD's codebook, of any size, in releases that follow each other, with the outcome to expect."""
