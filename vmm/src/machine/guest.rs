//! Where a guest image comes from: a file, or bytes that a program has made or carries with it.
//! Names it, and reads it only when a machine is built.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tracing::info;

use super::image::{Image, ImageError};

use crate::control_characters::spell_out_path;

/// A guest image that is still to be read and checked.
#[derive(Clone, PartialEq, Eq)]
pub struct Guest {
    name: PathBuf,
    bytes: Option<Arc<[u8]>>,
}

impl Guest {
    /// The image in a file, which is read anew for each machine.
    pub fn file(path: impl Into<PathBuf>) -> Self {
        Self {
            name: path.into(),
            bytes: None,
        }
    }

    /// An image given as bytes. Messages and reports call it `name`.
    pub fn bytes(name: impl Into<PathBuf>, bytes: impl Into<Arc<[u8]>>) -> Self {
        Self {
            name: name.into(),
            bytes: Some(bytes.into()),
        }
    }

    /// The path of its file, or the name that it was given.
    pub fn name(&self) -> &Path {
        &self.name
    }

    /// Reads and checks it.
    ///
    /// # Errors
    /// [`ImageError`] names the image and says what is wrong with it.
    pub fn open(&self) -> Result<Image, ImageError> {
        let image = match &self.bytes {
            None => Image::open(&self.name),
            Some(bytes) => Image::from_bytes(&self.name, Arc::clone(bytes)),
        }?;
        let length = image.file().len();
        info!(
            "read the guest image {}, {length} bytes",
            spell_out_path(&self.name)
        );
        Ok(image)
    }
}

impl From<PathBuf> for Guest {
    fn from(path: PathBuf) -> Self {
        Self::file(path)
    }
}

impl From<&Path> for Guest {
    fn from(path: &Path) -> Self {
        Self::file(path)
    }
}

impl From<&PathBuf> for Guest {
    fn from(path: &PathBuf) -> Self {
        Self::file(path)
    }
}

impl From<&str> for Guest {
    fn from(path: &str) -> Self {
        Self::file(path)
    }
}

impl From<String> for Guest {
    fn from(path: String) -> Self {
        Self::file(path)
    }
}

impl fmt::Debug for Guest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let length = self.bytes.as_ref().map(|bytes| bytes.len());
        f.debug_struct("Guest")
            .field("name", &self.name)
            .field("bytes", &length)
            .finish()
    }
}

impl fmt::Display for Guest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&spell_out_path(&self.name))
    }
}
