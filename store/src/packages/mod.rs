//! Packages of functions: zips and their unpacked content in a folder.

mod files;
mod folder;
#[cfg(any(test, fuzzing))]
mod properties;
mod unpack;
mod unpack_plan;

pub use folder::FolderPackages;
#[cfg(any(test, fuzzing))]
pub use properties::package;
pub use unpack::unpack;
pub use unpack_plan::UnpackLimits;
