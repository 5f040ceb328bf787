//! Reading an object from somewhere on, piece by piece.

use bytes::Bytes;
use futures::{StreamExt, TryStreamExt, stream::BoxStream};
use object_store::{GetOptions, GetRange};

use super::{Bucket, StoreError};

impl Bucket {
    /// The bytes of an object from `offset` on.
    ///
    /// # Errors
    /// When the store refuses it or cannot be reached.
    pub async fn read_from(&self, key: &str, offset: u64) -> Result<BoxStream<'static, Result<Bytes, StoreError>>, StoreError> {
        let uri = self.uri_of(key);
        let range = (offset > 0).then_some(GetRange::Offset(offset));
        let options = GetOptions { range, ..GetOptions::default() };
        let found = self.store.get_opts(&self.location(key)?, options).await.map_err(|error| StoreError::of(&uri, &error))?;
        Ok(found.into_stream().map_err(move |error| StoreError::of(&uri, &error)).boxed())
    }
}
