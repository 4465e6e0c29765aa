#!/bin/sh
# Run while an image is built: the packages of requirements/NAME.txt in /opt/ml-platform, with a list
# of them (SBOM, CycloneDX), and everything compiled, so that containers need not write anything.
# Two builds give the same bytes: no times, no order of the moment, nothing built from source.
#   install.sh NAME [folder of code to compile]...
set -eu
name=$1
shift
# compileall then writes hashes of the sources in place of their times.
export SOURCE_DATE_EPOCH=0 PYTHONHASHSEED=0 PYTHONDONTWRITEBYTECODE=1
to=/opt/ml-platform

python -m venv /opt/uv
/opt/uv/bin/pip install --quiet --no-cache-dir --require-hashes -r requirements/uv.txt
python -m venv --without-pip "$to"
/opt/uv/bin/uv pip install --quiet --no-cache --no-build --python "$to/bin/python" \
    --require-hashes -r "requirements/$name.txt"

python -m venv --without-pip /opt/sbom
/opt/uv/bin/uv pip install --quiet --no-cache --python /opt/sbom/bin/python \
    --require-hashes -r requirements/sbom.txt
/opt/sbom/bin/cyclonedx-py environment --output-reproducible --of JSON \
    -o "$to/sbom.cdx.json" "$to/bin/python"

# Up to a third of what these weigh is their own tests, and headers for compilers.
for package in numpy pandas pyarrow scipy sklearn statsmodels; do
    folder=$(echo "$to"/lib/python3*/site-packages/"$package")
    [ -d "$folder" ] || continue
    find "$folder" -depth -type d \( -name tests -o -name include \) -exec rm -rf {} +
done

"$to/bin/python" -m compileall -q -f --invalidation-mode unchecked-hash "$to/lib" "$@"
