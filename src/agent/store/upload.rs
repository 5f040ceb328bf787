//! Sending files to a bucket: large ones in parts, with few parts in memory at any time, and the size that
//! arrived compared with the size that was sent.

use std::path::Path;

use bytes::{Bytes, BytesMut};
use futures::{StreamExt, TryStreamExt, stream};
use object_store::{MultipartUpload, ObjectStoreExt};
use tokio::fs::File;
use tokio::io::AsyncReadExt;
use tokio::task::JoinSet;

use super::{Bucket, IN_FLIGHT, StoreError};

const MIB: u64 = 1 << 20;
/// Size of the parts of an upload; files up to it are sent whole.
const PART: u64 = 8 * MIB;
/// Parts an upload has at most; stores allow 10 000.
const MAX_PARTS: u64 = 9_000;

impl Bucket {
    /// Uploads one file, in parts where it is large, and compares what arrived.
    ///
    /// # Errors
    /// When the file cannot be read or changes meanwhile, or the store refuses it or cannot be reached.
    pub async fn upload_file(&self, local: &Path, key: &str) -> Result<u64, StoreError> {
        let at = |error| StoreError::local(local, error);
        let mut file = File::open(local).await.map_err(at)?;
        let size = file.metadata().await.map_err(at)?.len();
        let uri = self.uri_of(key);
        let sent = if size <= PART {
            let Ok(_permit) = self.in_flight.acquire().await else { return Err(closed(&uri)) };
            let bytes = next_part(&mut file, PART).await.map_err(at)?;
            let sent = bytes.len() as u64;
            self.put(key, bytes).await?;
            sent
        } else {
            self.upload_parts(&mut file, local, key, part_size(size)).await?
        };
        let arrived = self.store.head(&self.location(key)?).await;
        let arrived = arrived.map_err(|error| StoreError::of(&uri, &error))?.size;
        match [sent, arrived].into_iter().find(|found| *found != size) {
            Some(found) => Err(StoreError::SizeDiffers { uri, found, expected: size }),
            None => Ok(size),
        }
    }

    /// Uploads the files named, relative to `local`, below `prefix`; returns their bytes.
    ///
    /// # Errors
    /// As for [`Self::upload_file`], for the first file that fails.
    pub async fn upload_dir(&self, local: &Path, prefix: &str, files: &[String]) -> Result<u64, StoreError> {
        let one = |name: &String| {
            let (path, key) = (local.join(name), format!("{prefix}/{name}"));
            async move { self.upload_file(&path, &key).await }
        };
        stream::iter(files.iter().map(one).collect::<Vec<_>>())
            .buffer_unordered(IN_FLIGHT)
            .try_fold(0, |sum, size| async move { Ok(sum + size) })
            .await
    }

    async fn upload_parts(&self, file: &mut File, local: &Path, key: &str, part: u64) -> Result<u64, StoreError> {
        let uri = self.uri_of(key);
        let begun = self.store.put_multipart(&self.location(key)?).await;
        let mut upload = begun.map_err(|error| StoreError::of(&uri, &error))?;
        let ended = match self.send_parts(&mut *upload, file, (local, &uri), part).await {
            Ok(sent) => match upload.complete().await {
                Ok(_) => return Ok(sent),
                Err(error) => StoreError::of(&uri, &error),
            },
            Err(error) => error,
        };
        // Parts of an upload that is neither completed nor aborted cost money without being seen.
        if let Err(error) = upload.abort().await {
            tracing::warn!(uri, error = %StoreError::of(&uri, &error), "upload not aborted");
        }
        Err(ended)
    }

    async fn send_parts(
        &self,
        upload: &mut dyn MultipartUpload,
        file: &mut File,
        (local, uri): (&Path, &str),
        part: u64,
    ) -> Result<u64, StoreError> {
        let mut sending = JoinSet::new();
        let mut sent = 0;
        loop {
            let permit = self.in_flight.clone().acquire_owned().await;
            let permit = permit.map_err(|_| closed(uri))?;
            let bytes = next_part(file, part).await.map_err(|e| StoreError::local(local, e))?;
            if bytes.is_empty() {
                break;
            }
            sent += bytes.len() as u64;
            let request = upload.put_part(bytes.into());
            sending.spawn(async move {
                let result = request.await;
                drop(permit);
                result
            });
            while let Some(done) = sending.try_join_next() {
                part_done(done, uri)?;
            }
        }
        while let Some(done) = sending.join_next().await {
            part_done(done, uri)?;
        }
        Ok(sent)
    }
}

/// The next `size` bytes of a file; fewer only at its end.
async fn next_part(file: &mut File, size: u64) -> std::io::Result<Bytes> {
    let left = file.metadata().await?.len().min(size);
    let mut part = BytesMut::with_capacity(usize::try_from(left).unwrap_or_default());
    let mut limited = file.take(size);
    while limited.read_buf(&mut part).await? > 0 {}
    Ok(part.freeze())
}

const fn part_size(size: u64) -> u64 {
    let needed = size.div_ceil(MAX_PARTS).div_ceil(MIB) * MIB;
    if needed > PART { needed } else { PART }
}

fn part_done(done: Result<object_store::Result<()>, tokio::task::JoinError>, uri: &str) -> Result<(), StoreError> {
    match done {
        Ok(result) => result.map_err(|error| StoreError::of(uri, &error)),
        Err(error) => Err(StoreError::Failed { uri: uri.to_owned(), problem: error.to_string() }),
    }
}

fn closed(uri: &str) -> StoreError {
    StoreError::Failed { uri: uri.to_owned(), problem: "the agent is ending".to_owned() }
}
