//! The journal as a whole: on real files, through disks that fail, over many starts.

mod ends;
mod faults;
mod files;
mod model;
mod rig;
mod wear;
