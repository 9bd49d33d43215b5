# Debian with python3 and nothing else: what debootstrap left, for machines that reach a Debian mirror but no image registry.
FROM scratch
ADD rootfs.tar /
ENV PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin LANG=C.UTF-8
