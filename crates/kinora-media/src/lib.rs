//! Pictures in, clips out: the only crate that knows file formats.
