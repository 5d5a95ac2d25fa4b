//! Pure address arithmetic and allocation.
