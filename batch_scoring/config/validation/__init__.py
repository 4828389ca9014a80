"""Reading and validating `pipeline.yaml`, without running any code of the pipeline: start with `spec_validation.py`.

The fields are in `config/spec.py` and `config/delivery_spec.py`; `config/loader.py` calls what is here.
"""
