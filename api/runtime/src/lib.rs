//! What both programs need to run.
