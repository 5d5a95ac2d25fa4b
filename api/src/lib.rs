//! The contract both programs compile against.
