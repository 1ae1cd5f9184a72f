//! The end of a JPEG file. Decoders make up the pixels that a cut file lacks, and a network must
//! not be scored on those.

/// Checks that the segments and scans of a JPEG file go on up to its end marker.
///
/// # Errors
///
/// Describes where the file is cut off.
pub(super) fn check_end(bytes: &[u8]) -> Result<(), String> {
    let cut = || "the JPEG file is cut off: its end marker is missing".to_owned();
    let mut at = 2;
    loop {
        // Fill bytes may precede a marker.
        while bytes.get(at) == Some(&0xff) && bytes.get(at + 1) == Some(&0xff) {
            at += 1;
        }
        let (Some(0xff), Some(&code)) = (bytes.get(at), bytes.get(at + 1)) else {
            return Err(cut());
        };
        at += 2;
        match code {
            END => return Ok(()),
            // Markers without contents.
            0x01 | 0xd0..=0xd8 => continue,
            _ => {}
        }
        let length = match bytes.get(at..at + 2) {
            Some(length) => usize::from(u16::from_be_bytes([length[0], length[1]])),
            None => return Err(cut()),
        };
        at += length.max(2);
        if code == SCAN {
            at = end_of_scan(bytes, at).ok_or_else(cut)?;
        }
    }
}

/// Code of the marker at the end of a file.
const END: u8 = 0xd9;
/// Code of the marker before a scan.
const SCAN: u8 = 0xda;

/// Returns the place of the marker that ends the scan which begins at `at`. Restart markers and
/// stuffed bytes belong to the scan.
fn end_of_scan(bytes: &[u8], mut at: usize) -> Option<usize> {
    loop {
        at += bytes.get(at..)?.iter().position(|&byte| byte == 0xff)?;
        match bytes.get(at + 1)? {
            0x00 | 0xd0..=0xd7 => at += 2,
            0xff => at += 1,
            _ => return Some(at),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_cut_of_a_file_is_noticed() {
        let mut bytes = Vec::new();
        image::RgbImage::from_fn(40, 30, |x, y| image::Rgb([(x * y) as u8, x as u8, y as u8]))
            .write_to(&mut std::io::Cursor::new(&mut bytes), image::ImageFormat::Jpeg)
            .unwrap();
        assert_eq!(check_end(&bytes), Ok(()));
        for length in 2..bytes.len() {
            assert!(check_end(&bytes[..length]).is_err(), "{length}");
        }
        // Cameras append more pictures.
        bytes.extend([1, 2, 3]);
        assert_eq!(check_end(&bytes), Ok(()));
    }
}
