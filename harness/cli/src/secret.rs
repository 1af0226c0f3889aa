//! Reading what must not be kept: seeds and secrets.

use std::io::Read;
use std::os::unix::fs::FileTypeExt;
use std::path::Path;

use zeroize::Zeroizing;

use crate::Failure;

/// Bytes that a file with a secret may have.
const MOST: u64 = 1024 * 1024;

/// Reads a file with a seed or a secret; the error never repeats what it holds.
///
/// A regular file, or a pipe for those who keep their secrets elsewhere; a device could have no end.
pub(crate) fn read_small(file: &Path) -> Result<Zeroizing<Vec<u8>>, Failure> {
    let refused = |why: String| Failure::Usage(format!("read {}: {why}", file.display()));
    let meta = std::fs::metadata(file).map_err(|error| refused(error.to_string()))?;
    if !meta.is_file() && !meta.file_type().is_fifo() {
        return Err(refused("neither a regular file nor a pipe".to_owned()));
    }
    if meta.len() >= MOST {
        return Err(refused(format!("{} bytes; {} at most", meta.len(), MOST - 1)));
    }
    // With room for all of it at once, so that no smaller buffer is left behind unwiped.
    let mut bytes = Zeroizing::new(Vec::with_capacity(usize::try_from(MOST).unwrap_or(usize::MAX)));
    std::fs::File::open(file)
        .and_then(|file| file.take(MOST).read_to_end(&mut bytes))
        .map_err(|error| refused(error.to_string()))?;
    if bytes.len() as u64 == MOST {
        return Err(refused(format!("more than {} bytes", MOST - 1)));
    }
    Ok(bytes)
}
