"""Images in a bucket of S3: AWS, Ceph RGW, Swift's s3api, MinIO and others."""
